"""Writes `meterline_sdk/_sync` from `meterline_sdk/_async`: one logic, two clients.

`python sdk/unasync.py` writes; with `--check` it only says whether the files are current.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent / "meterline_sdk"
NOTE = "# Written by sdk/unasync.py from {source}: change that file.\n"
WORDS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsyncClient\b", "Client"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b__anext__\b", "__next__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\baclose\b", "close"),
    (r"\baiter\(", "iter("),
    (r"\banext\(", "next("),
    (r"\bclient\.aio\b", "client"),
    (r"# Only without async: ", ""),
    (r"\n    def __await__.*\n.*\n", ""),
    (r"\bimport asyncio\b", "import time"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\basyncio\.to_thread\((\w+), ", r"\1("),
    (r"\b_async\b", "_sync"),
    (r"\bAwaitable\[((?:[^\[\]]|\[[^\[\]]*\])+)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"for one in page:\n            yield one", "yield from page"),
    (r"\basync_(capture\w*|every)\b", r"\1"),
)


def written() -> dict[Path, str]:
    """What the files of `_sync` must hold."""
    found = {}
    for source in sorted((ROOT / "_async").rglob("*.py")):
        text = source.read_text()
        for pattern, word in WORDS:
            text = re.sub(pattern, word, text)
        relative = source.relative_to(ROOT / "_async")
        note = NOTE.format(source=f"_async/{relative}")
        found[ROOT / "_sync" / relative] = _formatted(note + text)
    return found


def _formatted(text: str) -> str:
    """Other words sort in another order, and shorter ones may fit a line that was broken."""
    for step in (["check", "--select", "I", "--fix", "--quiet"], ["format"]):
        command = [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(ROOT / "x.py"), "-"]
        text = subprocess.run(command, input=text, text=True, stdout=-1, check=True).stdout
    return text


def main() -> None:
    """Write, or check."""
    files = written()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    gone = [path for path in (ROOT / "_sync").rglob("*.py") if path not in files]
    if "--check" in sys.argv:
        if stale or gone:
            sys.exit(f"not current: {', '.join(str(path) for path in [*stale, *gone])}")
        return
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in gone:
        path.unlink()


if __name__ == "__main__":
    main()
