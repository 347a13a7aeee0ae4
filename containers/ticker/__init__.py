"""The ticker: samples once a second, keeps their history, tells the web, and sets off reconciliation."""
