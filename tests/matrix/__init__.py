"""Matrix as mathematics: tables of cases from the specification and properties, thousands per second."""
