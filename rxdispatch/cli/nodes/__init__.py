"""``rxdispatch nodes``: watch a fleet, or simulate one."""
