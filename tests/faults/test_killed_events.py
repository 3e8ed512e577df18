"""Accepted events outlive their daemon, however that ends; and what cannot be kept is not accepted."""

from __future__ import annotations

import http.client
import json
import random
import re
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from daemon_running import ACCOUNT, REGION, RunningDaemon, running_daemon
from event_running import ATTEMPTS, TOLD, Sent, advance, counters, destination_row, lines, records, settle
from moto_running import Queue, running_aws
from needs import missing
from small_disk import small_disk
from waiting import WAIT_SECONDS, await_that

ROUNDS: Final = 5
SENDERS: Final = 4
AWS_ACCOUNT: Final = "123456789012"


class Place:
    """What daemons that are killed one after the other have in common."""

    def __init__(self, directory: Path) -> None:
        self.sockets, self.data = directory / "s", directory / "data"
        self.sockets.mkdir()
        self.attempts, self.records = directory / "attempts", directory / "records"

    def daemon(self, *options: str, **more: object) -> object:
        own = {"TMPDIR": str(self.sockets), "XDG_RUNTIME_DIR": str(self.sockets)}
        return running_daemon("--data-dir", str(self.data), *options, ephemeral=False, environment=own, **more)


@pytest.fixture
def place(directory: Path) -> Place:
    return Place(directory)


def kill(daemon: RunningDaemon) -> None:
    daemon.process.kill()
    daemon.process.wait()


def send_until_killed(daemon: RunningDaemon, body: bytes, accepted: list[str], done: threading.Semaphore) -> None:
    """Events, one behind the other, and the ids of those that were accepted."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT_SECONDS)
    try:
        while True:
            headers = {"X-Amz-Invocation-Type": "Event"}
            connection.request("POST", "/2015-03-31/functions/noted/invocations", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 202
            accepted.append(answer.headers["x-amzn-requestid"])
            done.release()
    except (OSError, http.client.HTTPException):
        pass  # it is gone
    finally:
        connection.close()


def test_no_event_that_was_accepted_is_lost(place: Place, rng: random.Random) -> None:
    body = json.dumps({"path": str(place.attempts)}).encode()
    accepted: list[str] = []
    for turn in range(ROUNDS):
        with place.daemon() as daemon:
            if turn == 0:
                daemon.deploy("noted", ATTEMPTS)
            done = threading.Semaphore(0)
            with ThreadPoolExecutor(SENDERS) as pool:
                calls = [pool.submit(send_until_killed, daemon, body, accepted, done) for _ in range(SENDERS)]
                for _ in range(rng.randrange(1, 400)):
                    assert done.acquire(timeout=WAIT_SECONDS)
                kill(daemon)
            for call in calls:
                call.result()
    with place.daemon() as daemon:
        settle(daemon)
    ran = [line.split()[0] for line in lines(place.attempts)]
    assert len(accepted) == len(set(accepted)) > ROUNDS
    assert set(accepted) <= set(ran), "an event that was accepted has not run"


def test_a_retry_is_waited_for_by_the_next_daemon(place: Place) -> None:
    with place.daemon("--retry-delay", "1h") as daemon:
        daemon.deploy("noted", ATTEMPTS)
        daemon.deploy("told", TOLD, environment={"RECORDS": str(place.records)})
        told = {"Destination": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:told"}
        daemon.lambda_.put_function_event_invoke_config(FunctionName="noted", DestinationConfig={"OnFailure": told})
        sent = Sent(daemon, "noted", place.attempts, fail="no")
        await_that(lambda: counters(daemon)["waiting_retry"] == 1)
        # What the queue has been told last comes with the next group, which this one is in.
        other = Sent(daemon, "noted", place.attempts)
        await_that(lambda: counters(daemon)["completed"] == 1)
        kill(daemon)
    with place.daemon("--retry-delay", "1h", "--clock", "virtual") as daemon:
        assert counters(daemon)["waiting_retry"] == 1
        advance(daemon, "59m")
        assert len(sent.words) == 1
        advance(daemon, "1m")
        assert len(sent.words) == 2
        kill(daemon)
    with place.daemon("--retry-delay", "1m", "--clock", "virtual") as daemon:
        advance(daemon, "4h")
        assert len(sent.words) == 3, "the attempts of the daemons before count"
        (record,) = records(place.records)
        assert record["requestContext"]["requestId"] == sent.request_id
        assert record["requestContext"]["approximateInvokeCount"] == 3
        assert other.words


def test_a_destination_that_is_down_loses_nothing(place: Place) -> None:
    """Nor does a daemon that is killed meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    arn = f"arn:aws:sqs:{REGION}:{AWS_ACCOUNT}:down"
    options = ("--aws-endpoint", f"http://127.0.0.1:{port}", "--account", AWS_ACCOUNT, "--retry-delay", "10ms")
    with place.daemon(*options) as daemon:
        client = daemon.client(account=AWS_ACCOUNT)
        daemon.deploy("noted", ATTEMPTS, client=client, Role=f"arn:aws:iam::{AWS_ACCOUNT}:role/r")
        both = {"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": arn}}
        client.put_function_event_invoke_config(FunctionName="noted", DestinationConfig=both)
        sent = [Sent(daemon, "noted", place.attempts, client, **({"fail": "no"} if n % 2 else {})) for n in range(6)]
        await_that(lambda: counters(daemon)["waiting_delivery"] == 6)
        await_that(lambda: "did not answer" in destination_row(daemon, arn)["last_error"])
        kill(daemon)
    with running_aws(port) as aws:
        queue = Queue(aws, "down")
        with place.daemon(*options) as daemon:
            settle(daemon)
        found = [json.loads(message["Body"])["requestContext"] for message in queue.take()]
    assert len(found) == 6
    assert {one["requestId"]: one["condition"] for one in found} == {
        one.request_id: "RetriesExhausted" if "fail" in one.event else "Success" for one in sent
    }


def test_a_full_disk_refuses_events_and_keeps_what_it_has(directory: Path) -> None:
    sockets = directory / "s"
    sockets.mkdir()
    own = {"TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets)}
    path = directory / "attempts"
    with small_disk(directory / "data", 16) as disk:
        options = ("--data-dir", str(disk.path))
        with running_daemon(*options, ephemeral=False, environment=own, complains=True) as daemon:
            daemon.deploy("noted", ATTEMPTS)
            daemon.lambda_.update_function_configuration(FunctionName="noted", Timeout=30)
            daemon.settle("noted")
            kept = [Sent(daemon, "noted", path) for _ in range(10)]
            disk.fill()
            body = json.dumps({"path": str(path), "pad": "x" * 500_000}).encode()
            statuses = []
            for _ in range(20):
                answer = daemon.send_invoke("noted", body, Invocation_Type="Event")
                statuses.append(answer.status)
                if answer.status != 202:
                    assert (answer.status, answer.headers["x-amzn-errortype"]) == (500, "ServiceException")
                    assert answer.json["Type"] == "Service" and "could not be kept" in answer.json["Message"]
            assert 500 in statuses
            assert daemon.invoke("noted", {"path": str(directory / "other")}).result, "synchronous calls go on"
            disk.make_room()
            last = Sent(daemon, "noted", path)
            settle(daemon)
            ran = [line.split()[0] for line in lines(path)]
            assert {one.request_id for one in (*kept, last)} <= set(ran)
            assert len(set(ran)) == 11 + statuses.count(202)


def test_the_sync_to_disk_returns_before_the_202_is_sent(place: Place) -> None:
    strace = shutil.which("strace")
    if strace is None:
        missing("strace is not installed (apt-get install strace)")
    trace = place.sockets.parent / "trace"
    prefix = [strace, "-D", "-f", "-s", "64", "-o", str(trace)]
    prefix += ["-e", "trace=fdatasync,fsync,recvfrom,read,sendto,write,writev,sendmsg", "--"]
    with place.daemon(prefix=prefix) as daemon:
        daemon.deploy("noted", ATTEMPTS)
        for number in range(20):
            Sent(daemon, "noted", place.attempts)
            if number % 4 == 0:  # then the queue has time to write down, unsynced, that it is over
                settle(daemon)
                await_that(lambda: counters(daemon)["queue"]["written"])
        settle(daemon)
    asked = synced = False
    answers = 0
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(r"(fdatasync|fsync)(\(\d+\)| resumed>\)).*= 0$", line):
            synced = asked
        elif "/noted/invocations" in line and "POST " in line:
            asked, synced = True, False
        elif "HTTP/1.1 202" in line:
            assert synced, f"answered before the disk has it: {line}"
            answers += 1
            asked = False
    assert answers == 20
