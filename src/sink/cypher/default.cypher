UNWIND $episodes AS episode
MERGE (s:Session {id: episode.session})
MERGE (e:Episode {id: episode.id})
SET e.group = episode.group, e.user = episode.user, e.agent = episode.agent,
    e.proxy = episode.proxy, e.route = episode.route, e.`end` = episode.`end`,
    e.at = episode.at, e.time = episode.time, e.content = episode.content, e.metadata = episode.metadata_json
MERGE (s)-[:HAS_EPISODE]->(e)
WITH s, e
MATCH (s)-[:HAS_EPISODE]->(other:Episode)
WITH e, max(CASE WHEN other.id < e.id THEN other.id END) AS previous,
        min(CASE WHEN other.id > e.id THEN other.id END) AS next
OPTIONAL MATCH (:Episode {id: previous})-[past:NEXT]->(wrong:Episode) WHERE wrong.id <> e.id
DELETE past
WITH DISTINCT e, previous, next
OPTIONAL MATCH (p:Episode {id: previous})
FOREACH (x IN CASE WHEN p IS NULL THEN [] ELSE [p] END | MERGE (x)-[:NEXT]->(e))
WITH e, next
OPTIONAL MATCH (n:Episode {id: next})
FOREACH (x IN CASE WHEN n IS NULL THEN [] ELSE [n] END | MERGE (e)-[:NEXT]->(x))
