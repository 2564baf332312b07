"""Study files, and studies with the resolved settings of their arms."""
