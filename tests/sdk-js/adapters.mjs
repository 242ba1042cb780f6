// The same calls in the words of each published SDK. Nothing of the packages is changed.

export async function adapter(version, baseUrl, token) {
  return version === '185' ? await beta185(baseUrl, token) : await beta232(baseUrl, token)
}

async function beta185(baseUrl, token) {
  const { OpenMeter, WindowSize } = await import('openmeter-185')
  const openmeter = new OpenMeter({ baseUrl, token })
  return {
    windowSize: WindowSize.HOUR,
    ingest: (events) => openmeter.events.ingest(events),
    listEvents: (params) => openmeter.events.list(params),
    createMeter: (meter) => openmeter.meters.create(meter),
    listMeters: () => openmeter.meters.list(),
    getMeter: (slug) => openmeter.meters.get(slug),
    query: (slug, params) => openmeter.meters.query(slug, params),
    meterSubjects: (slug) => openmeter.meters.subjects(slug),
    upsertSubjects: (subjects) => openmeter.subjects.upsert(subjects),
    listSubjects: () => openmeter.subjects.list(),
    getSubject: (key) => openmeter.subjects.get(key),
    deleteSubject: (key) => openmeter.subjects.delete(key),
    createToken: (token) => openmeter.portal.createToken(token),
    invalidateTokens: () => openmeter.portal.invalidateTokens(),
    // This version has no portal client: a browser would call fetch.
    portalQuery: async (portalToken, slug) => {
      const response = await fetch(`${baseUrl}/api/v1/portal/meters/${slug}/query`, {
        headers: { Authorization: `Bearer ${portalToken}` },
      })
      if (!response.ok) throw Object.assign(new Error('portal'), { status: response.status })
      return await response.json()
    },
    createFeature: (feature) => openmeter.features.create(feature),
    getFeature: (idOrKey) => openmeter.features.get(idOrKey),
    listFeatures: () => openmeter.features.list(),
    deleteFeature: (idOrKey) => openmeter.features.delete(idOrKey),
    entitle: (subject, entitlement) => openmeter.subjects.createEntitlement(subject, entitlement),
    override: (subject, key, entitlement) => openmeter.subjects.overrideEntitlement(subject, key, entitlement),
    entitlement: (id) => openmeter.entitlements.get(id),
    entitlements: (query) => openmeter.entitlements.list(query),
    endEntitlement: (subject, idOrKey) => openmeter.subjects.deleteEntitlement(subject, idOrKey),
    value: (subject, idOrKey) => openmeter.subjects.getEntitlementValue(subject, idOrKey),
    valueAt: (subject, key, at) => openmeter.subjects.getEntitlementValueAt(subject, key, at),
    history: (subject, key, query) => openmeter.subjects.getEntitlementHistory(subject, key, query),
    reset: (subject, key, body) => openmeter.subjects.resetEntitlementUsage(subject, key, body),
    grant: (subject, key, grant) => openmeter.subjects.createEntitlementGrant(subject, key, grant),
    grants: (subject, key) => openmeter.subjects.listEntitlementGrants(subject, key),
    allGrants: (query) => openmeter.grants.list(query),
    voidGrant: (id) => openmeter.grants.delete(id),
    // What an error says: its status and its problem document.
    problem: (error) =>
      error.name === 'HttpError' // which this version does not export
        ? { status: error.statusCode, ...error.problem }
        : { status: error.status },
  }
}

async function beta232(baseUrl, apiKey) {
  const { OpenMeter, isHTTPError } = await import('openmeter-232')
  const { OpenMeter: Portal } = await import('openmeter-232/portal')
  const openmeter = new OpenMeter({ baseUrl, apiKey })
  return {
    windowSize: 'HOUR',
    ingest: (events) => openmeter.events.ingest(events),
    listEvents: (params) => openmeter.events.list(params),
    createMeter: (meter) => openmeter.meters.create(meter),
    listMeters: () => openmeter.meters.list(),
    getMeter: (slug) => openmeter.meters.get(slug),
    query: (slug, params) => openmeter.meters.query(slug, params),
    // This version names no method for it; its typed client still knows the route.
    meterSubjects: async (slug) => {
      const path = { meterIdOrSlug: slug }
      const { data } = await openmeter.client.GET('/api/v1/meters/{meterIdOrSlug}/subjects', {
        params: { path },
      })
      return data
    },
    upsertSubjects: (subjects) => openmeter.subjects.upsert(subjects),
    listSubjects: () => openmeter.subjects.list(),
    getSubject: (key) => openmeter.subjects.get(key),
    deleteSubject: (key) => openmeter.subjects.delete(key),
    createToken: (token) => openmeter.portal.create(token),
    invalidateTokens: () => openmeter.portal.invalidate({}),
    portalQuery: (portalToken, slug) => new Portal({ baseUrl, portalToken }).query(slug),
    createFeature: (feature) => openmeter.features.create(feature),
    getFeature: (idOrKey) => openmeter.features.get(idOrKey),
    listFeatures: () => openmeter.features.list(),
    deleteFeature: (idOrKey) => openmeter.features.delete(idOrKey),
    entitle: (subject, entitlement) => openmeter.entitlementsV1.create(subject, entitlement),
    override: (subject, key, entitlement) => openmeter.entitlementsV1.override(subject, key, entitlement),
    entitlement: (id) => openmeter.entitlementsV1.get(id),
    entitlements: (query) => openmeter.entitlementsV1.list(query),
    endEntitlement: (subject, idOrKey) => openmeter.entitlementsV1.delete(subject, idOrKey),
    value: (subject, idOrKey) => openmeter.entitlementsV1.value(subject, idOrKey),
    valueAt: (subject, key, time) => openmeter.entitlementsV1.value(subject, key, { time }),
    history: (subject, key, query) => openmeter.entitlementsV1.history(subject, key, query),
    reset: (subject, key, body) => openmeter.entitlementsV1.reset(subject, key, body),
    grant: (subject, key, grant) => openmeter.entitlementsV1.grants.create(subject, key, grant),
    grants: (subject, key) => openmeter.entitlementsV1.grants.list(subject, key),
    allGrants: (query) => openmeter.entitlementsV1.grants.listAll(query),
    voidGrant: (id) => openmeter.entitlementsV1.grants.void(id),
    problem: (error) =>
      isHTTPError(error)
        ? {
            status: error.status,
            title: error.title,
            detail: error.getField('detail'),
            extensions: error.getField('extensions'),
          }
        : { status: error.status },
  }
}
