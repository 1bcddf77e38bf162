"""Moving files: addresses, plan, session, ledger."""
