"""What the house says to other homeservers and believes of them: real stores, real TLS where a wire is involved."""
