-- KEYS: tenants. ARGV: tenant, layout. Answers the layout that is noted then.
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[1])
