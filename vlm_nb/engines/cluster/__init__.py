"""The parts of the ``ray`` engine: the cluster, a replica in its process, who answers what, big tables."""
