"""The ``rxdispatch`` command; needs the extra ``cli``."""
