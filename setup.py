"""The native build: Cython modules, the C sources of csrc/ and Lambda's service model in a compact form.

Switches, all from the environment:
    FASTLAM_DEBUG=1                assertions and counters in C and Cython, no optimisation
    FASTLAM_SANITIZE=address,undefined | thread
    FASTLAM_COVERAGE=1             gcov for C, line tracing for Cython
    FASTLAM_PURE=1                 leaves the Python modules of the hot path as they are: pdb steps into them
    FASTLAM_ANNOTATE=1             Cython's annotated HTML beside each generated C file, below build/
Each combination has a directory of its own below build/, so that no build finds another one's objects.
"""

import os
import sys
from pathlib import Path

if not sys.platform.startswith("linux"):
    sys.exit(
        f"fastlam runs on Linux only and this is {sys.platform!r}: use WSL2, a Linux VM or a container"
        " (docs/howto/install.md)."
    )

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, ExecError, PlatformError

ROOT = Path(__file__).parent


def switch(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


debug, coverage = switch("FASTLAM_DEBUG"), switch("FASTLAM_COVERAGE")
sanitize = os.environ.get("FASTLAM_SANITIZE", "")
pure = switch("FASTLAM_PURE")
parts = [
    *(["pure"] if pure else []),
    *(["debug"] if debug else []),
    *(sanitize.split(",") if sanitize else []),
    *(["coverage"] if coverage else []),
]
build_base = f"build/{'-'.join(parts) or 'release'}"
compile_args = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wno-unused-function", "-Wno-unreachable-code"]
compile_args += ["-O0", "-g3", "-DFL_DEBUG=1"] if debug else ["-O1" if sanitize else "-O2", "-g0"]
link_args = ["-pthread", "-lm"]
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g3"]
    link_args += [f"-fsanitize={sanitize}"]
if coverage:
    compile_args += ["--coverage", "-DCYTHON_TRACE=1"]
    link_args += ["--coverage"]


def extension(name: str, *c_sources: str, suffix: str = ".pyx") -> Extension:
    return Extension(
        f"fastlam.{name}",
        [f"src/fastlam/{name.replace('.', '/')}{suffix}", *(f"csrc/{source}" for source in c_sources)],
        include_dirs=["csrc"],
        depends=[str(path) for path in (ROOT / "csrc").glob("*.h")],
        # Generated from plain Python, it is all calls into the interpreter: -O2 would only take longer.
        extra_compile_args=compile_args if suffix == ".pyx" else [*compile_args, "-O1"],
        extra_link_args=link_args,
    )


CHANNEL_SOURCES = ("between", "express", "first", "slots", "spsc", "wake", "zmtp")
DISPATCHER_SOURCES = ("express", "ring", "rng", "slots", "spsc", "timer", "wake", "zmtp")
EXTENSIONS = [
    extension("core.scan", "fl_json.c"),
    extension("core.jsonwriter"),
    extension("core.channel", *(f"fl_{name}.c" for name in CHANNEL_SOURCES)),
    extension("core.dispatcher", *(f"fl_{name}.c" for name in DISPATCHER_SOURCES)),
    extension("http.front", "fl_http.c"),
    extension("http.front_process", "fl_express.c", "fl_spsc.c", "fl_tally.c", "fl_wake.c"),
    extension("http.link", "fl_express.c", "fl_http.c", "fl_spsc.c", "fl_tally.c", "fl_wake.c"),
    extension("api.repeated"),
]
# Plain Python that every invocation passes through, compiled as it stands: fewer instructions, and above all fewer
# cache lines in each of many worker processes. Python's rules for indices hold; annotations are not C types. Not the
# marshaller: calls between compiled functions do not count as recursion, of which it must allow as much as Lambda does.
HOT_MODULES = [] if pure or debug or coverage or sanitize else [
    extension(name, suffix=".py")
    for name in (
        "api.cors",
        "api.invoke",
        "embed.executor",
        "embed.future",
        "embed.pickling",
        "http.connection",
        "invoke.event",
        "invoke.function_events",
        "store.queue_sqlite",
        "wire.tasks",
        "worker.context",
        "worker.functions",
        "worker.tasks",
    )
]


class BuildExt(build_ext):
    """Says in one sentence what to do where no compiler answers."""

    def build_extensions(self) -> None:
        try:
            super().build_extensions()
        except (CCompilerError, ExecError, PlatformError) as error:
            sys.exit(
                f"fastlam could not compile its native modules ({error}): install a C compiler and the Python"
                " headers (Debian: apt-get install gcc python3-dev) or a wheel (docs/howto/install.md)."
            )


class BuildPy(build_py):
    """Compiles botocore's Lambda service model before the package is copied."""

    def run(self) -> None:
        sys.path.insert(0, str(ROOT / "tools"))
        from compile_service_model import compile_service_model

        compile_service_model(ROOT / "src/fastlam/api/service_model.msgpack")
        super().run()


cython_options = {
    "nthreads": os.cpu_count() or 1,
    "annotate": switch("FASTLAM_ANNOTATE"),
    "include_path": ["src"],
    "build_dir": f"{build_base}/cython",
}
setup(
    options={"build": {"build_base": build_base}, "build_ext": {"parallel": True}},
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=[
        *cythonize(
            EXTENSIONS,
            **cython_options,
            compiler_directives={
                "language_level": "3",
                "boundscheck": debug,
                "wraparound": False,
                "initializedcheck": debug,
                "cdivision": True,
                "linetrace": coverage,
            },
        ),
        *cythonize(HOT_MODULES, **cython_options, compiler_directives={"annotation_typing": False, "binding": True}),
    ],
)
