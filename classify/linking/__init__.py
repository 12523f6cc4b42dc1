"""Find which labels of different sessions are one person."""

from typing import TYPE_CHECKING

from ...common.lazy import lazy_names

__all__ = ["Links", "link", "link_labels", "write_links"]

if TYPE_CHECKING:
    from .output import write_links as write_links
    from .people import Links as Links
    from .people import link as link
    from .people import link_labels as link_labels
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Links": ".people",
            "link": ".people",
            "link_labels": ".people",
            "write_links": ".output",
        },
    )
