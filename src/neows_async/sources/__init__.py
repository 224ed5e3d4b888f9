"""Sources: where Browse pages come from. One file each."""
