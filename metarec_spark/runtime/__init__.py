"""What a process needs before it works: Java, jars, the Spark session, logs, the cache of compiled loops."""
