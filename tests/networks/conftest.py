"""What tests against the peers' own code share."""

from helpers.peers import peer

__all__ = ["peer"]
