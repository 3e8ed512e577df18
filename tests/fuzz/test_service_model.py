"""Requests generated from the service model, to a real daemon: never a fault of ours, never an error that the model does
not have, and every success is what the model says.

FASTLAM_FUZZ_REQUESTS says how many; the seed in pytest's header gives the same ones again.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, given, seed, settings

from daemon_running import ACCOUNT, Answer, RunningDaemon, running_daemon, zipped
from fastlam.runtimes.python import INTERPRETER
from model_answers import faults
from model_requests import LAYERS, NAMES, OPERATIONS, Request, World, requests

REQUESTS = int(os.environ.get("FASTLAM_FUZZ_REQUESTS", "2000"))
FURNISHED_EVERY = 100  # requests, some of which delete what there is
PROBLEMS_MAX = 15  # after which nothing more is sent
REPLY_SECONDS = 20.0
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda-role"


class Run:
    """One connection to one daemon, what was learned from it, and what was wrong."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.daemon = daemon
        self.world = World()
        self.problems: list[str] = []
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._sent = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=REPLY_SECONDS)

    def furnish(self) -> None:
        """Something for the requests to find, as far as it is not there."""
        client = self.daemon.lambda_
        code = {"ZipFile": zipped("def handler(event, context):\n    return event\n")}
        for name in NAMES[:2]:
            for call, more in (
                (
                    client.create_function,
                    {"Runtime": INTERPRETER, "Role": ROLE, "Handler": "app.handler", "Code": code},
                ),
                (client.create_alias, {"Name": "live", "FunctionVersion": "$LATEST"}),
                (client.put_function_event_invoke_config, {"MaximumRetryAttempts": 1}),
                (client.create_function_url_config, {"AuthType": "NONE"}),
                (client.add_permission, {"StatementId": "one", "Action": "lambda:InvokeFunction", "Principal": "*"}),
            ):
                with contextlib.suppress(ClientError):
                    call(FunctionName=name, **more)
        for name in LAYERS:
            client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped("x = 1\n")})

    def close(self) -> None:
        self._connection.close()

    def send(self, request: Request) -> None:
        if len(self.problems) >= PROBLEMS_MAX:
            return
        if self._sent % FURNISHED_EVERY == 0:
            self.furnish()
        self._sent += 1
        method, target, body, headers = request.over_http(self.world)
        try:
            self._connection.request(method, target, body, headers)
            response = self._connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, fields, response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._problem(f"no answer: {error!r}", method, target, body, None)
            return
        meant = request.operation if request.arrives(self.world) else None
        name = request.operation.name if meant else method
        self.outcomes[name][answer.headers.get("x-amzn-errortype") or str(answer.status)] += 1
        if method in ("HEAD", "OPTIONS"):
            return
        for fault in faults(meant, answer):
            self._problem(f"{name}: {fault}", method, target, body, answer)
        if answer.status < 300 and answer.headers.get("content-type") == "application/json" and answer.body:
            self._learn(answer)

    def _learn(self, answer: Answer) -> None:
        with contextlib.suppress(ValueError):  # a function may answer anything
            self.world.learn(answer.json)

    def _problem(self, what: str, method: str, target: str, body: bytes | None, answer: Answer | None) -> None:
        if any(problem.startswith(what) for problem in self.problems):
            return
        said = ""
        if answer is not None:
            said = f" -> {answer.status} {answer.headers.get('x-amzn-errortype', '')} {answer.body[:400]!r}"
        self.problems.append(f"{what}\n    {method} {target[:600]}\n    {(body or b'')[:1200]!r}{said}")

    def table(self) -> str:
        """What came of each operation, for those who look."""
        lines = []
        for name in sorted(self.outcomes):
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes[name].most_common())
            lines.append(f"{name:42} {outcomes}")
        return "\n".join(lines)


@pytest.mark.timeout(max(120, REQUESTS // 20))
def test_whatever_the_model_allows_and_more(rng: random.Random) -> None:
    with running_daemon(complains=True) as daemon:
        run = Run(daemon)

        # Requests depend on what came before them: nothing is shrunk, the first that fails are shown as they were.
        @seed(rng.getrandbits(32))
        @settings(
            max_examples=REQUESTS,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(request=requests())
        def send(request: Request) -> None:
            run.send(request)

        send()
        run.close()
        print(run.table())
        complaints = daemon.stderr()
        health: Any = daemon.health()
    assert run.problems == [], "\n" + "\n".join(run.problems) + "\n" + complaints[-4000:]
    assert "Traceback" not in complaints and " ERROR " not in complaints, complaints[-8000:]
    assert health["status"] == "ok"
    # It would be easy to be content with refusals alone.
    done = [name for name, outcomes in run.outcomes.items() if name in OPERATIONS and any(map(str.isdigit, outcomes))]
    assert len(done) > 20, run.table()
