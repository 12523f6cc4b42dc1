"""One description of work in units, and what runs it on several machines."""
