"""After all that was done to it: what was right is right, and everything stored agrees."""

from tests.faults.deployment import Deployment, memory


def test_everything_stored_agrees_with_everything_else(deployment: Deployment) -> None:
    print(memory(deployment))
    deployment.require_all_right()
