"""What every Sluice service shares and no service owns."""
