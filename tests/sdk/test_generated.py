import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[2] / "sdk"


def test_the_synchronous_client_is_the_asynchronous_one() -> None:
    command = [sys.executable, str(SDK / "unasync.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
