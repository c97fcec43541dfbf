"""What was measured, by which runs: a plan, a runner that goes through it, a ledger, pages made of it."""
