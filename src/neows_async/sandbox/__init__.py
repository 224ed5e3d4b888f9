"""An imitation of NeoWs' Browse and of the gateway before it: in the process, or on loopback."""
