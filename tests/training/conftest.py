"""The fixtures of tests that run whole commands."""

from helpers.fixtures import _cache, _one_thread, made

__all__ = ["_cache", "_one_thread", "made"]
