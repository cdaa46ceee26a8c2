"""Data: sources -> filters -> splits -> flat arrays and a card. numpy and arrow only."""
