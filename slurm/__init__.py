import mal  # noqa: F401 - before the modules here load torch: it sets how torch's threads wait
