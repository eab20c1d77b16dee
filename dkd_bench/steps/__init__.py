"""The steps of a run, each a module: request, plan, craft, score, record."""
