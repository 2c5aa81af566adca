"""What the book's chapters need and a user of the package does not: sessions, the ledger, plots, viewers."""

from lfx_utils.chapters.session import seed_all, start

__all__ = ["seed_all", "start"]
