from helpers.fixtures import _cache, _one_thread

__all__ = ["_cache", "_one_thread"]
