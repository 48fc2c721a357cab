from tests.agent.runtime.conftest import host

__all__ = ["host"]
