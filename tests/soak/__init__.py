"""Many experiments in a row in one repository, half of them interrupted (docs/trust.md)."""
