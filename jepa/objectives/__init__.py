"""What learning minimizes: objectives, their terms, and the heads that only they see (LeCun 2022, section 4.5)."""
