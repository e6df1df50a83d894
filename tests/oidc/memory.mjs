// What the provider remembers: every model's records in one map, without expiry or eviction (the
// library's own adapter forgets all but the last thousand records, which a long test would notice).

// Makes a store and the adapter through which the provider reaches it.
export function memory() {
  const records = new Map();
  const key = (model, id) => `${model}:${id}`;

  const adapter = (model) => ({
    async upsert(id, payload) {
      records.set(key(model, id), { model, ...structuredClone(payload) });
    },
    async find(id) {
      const found = records.get(key(model, id));
      return found && structuredClone(found);
    },
    async consume(id) {
      const found = records.get(key(model, id));
      if (found) found.consumed = Math.floor(Date.now() / 1000);
    },
    async destroy(id) {
      records.delete(key(model, id));
    },
    async revokeByGrantId(grantId) {
      for (const [k, record] of records) {
        if (record.model === model && record.grantId === grantId) records.delete(k);
      }
    },
    async findByUid(uid) {
      return [...records.values()].find((r) => r.model === model && r.uid === uid);
    },
    async findByUserCode(userCode) {
      return [...records.values()].find((r) => r.model === model && r.userCode === userCode);
    },
  });

  // Says whether a code or refresh token was used before; null when it is not known at all.
  const consumed = (token) => {
    const found = records.get(key('RefreshToken', token))
      ?? records.get(key('AuthorizationCode', token));
    return found ? found.consumed !== undefined : null;
  };

  // Lists a user's approvals, each with its unspent refresh token, if it has one.
  const grants = (user) => [...records.values()]
    .filter((record) => record.model === 'Grant' && record.accountId === user)
    .map((record) => {
      const refresh = [...records.values()].find(
        (r) => r.model === 'RefreshToken' && r.grantId === record.jti && r.consumed === undefined,
      );
      return { grant: record.jti, live: refresh !== undefined, refresh };
    });

  return { adapter, consumed, grants };
}
