// node run.mjs VERSION BASE_URL [TOKEN]: every call of the SDK that Meterline answers.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

import { adapter } from './adapters.mjs'

const [version, baseUrl, token] = process.argv.slice(2)
const sdk = await adapter(version, baseUrl, token)
const slug = `sdk_${version}`
const type = `sdk-${version}`
const time = (text) => new Date(`2024-05-06T${text}Z`)

async function eventually(what, look) {
  const deadline = Date.now() + 15_000
  for (;;) {
    const answer = await look()
    if (answer) return answer
    if (Date.now() > deadline) throw new Error(`never: ${what}`)
    await pause(20)
  }
}

async function refusal(call) {
  try {
    await call()
  } catch (error) {
    return sdk.problem(error)
  }
  return undefined
}

await step('meters.create', async () => {
  const meter = await sdk.createMeter({
    slug,
    eventType: type,
    aggregation: 'SUM',
    valueProperty: '$.duration_ms',
    groupBy: { method: '$.method', path: '$.path' },
  })
  assert.equal(meter.slug, slug)
})

await step('events.ingest one', async () => {
  const event = {
    specversion: '1.0',
    id: `id-${version}`,
    source: 'my-app',
    type,
    subject: 'user-1',
    time: time('10:00:00.123'),
    data: { method: 'GET', path: '/a', duration_ms: 10 },
  }
  assert.equal(await sdk.ingest(event), undefined)
  assert.equal(await sdk.ingest(event), undefined) // the same again counts once
})

await step('events.ingest many', async () => {
  const events = [
    { type, subject: 'user-1', time: time('10:30:00'), data: { method: 'GET', path: '/a', duration_ms: 20 } },
    { type, subject: 'user-1', time: time('11:00:00'), data: { method: 'POST', path: '/b', duration_ms: '0.5' } },
    { type, subject: 'user-2', time: time('11:00:00'), data: { method: 'GET', path: '/a', duration_ms: 7 } },
    { type, subject: 'user-2', data: { method: 'GET', path: '/now', duration_ms: 100 } },
  ]
  assert.equal(await sdk.ingest(events), undefined)
})

await step('meters.query', async () => {
  const all = await eventually('five events are counted', async () => {
    const { data } = await sdk.query(slug)
    return data[0]?.value === 137.5 && data
  })
  assert.equal(all.length, 1)
  assert.deepEqual(all[0].groupBy, {})

  const { data, from, to, windowSize } = await sdk.query(slug, {
    subject: ['user-1'],
    groupBy: ['method', 'path'],
    from: time('10:00:00'),
    to: time('12:00:00'),
    windowSize: sdk.windowSize,
  })
  assert.equal(windowSize, 'HOUR')
  assert.deepEqual([new Date(from), new Date(to)], [time('10:00:00'), time('12:00:00')])
  const rows = data.map((row) => [
    new Date(row.windowStart).toISOString(),
    new Date(row.windowEnd).toISOString(),
    row.subject,
    row.groupBy.method,
    row.groupBy.path,
    row.value,
  ])
  assert.deepEqual(rows, [
    ['2024-05-06T10:00:00.000Z', '2024-05-06T11:00:00.000Z', 'user-1', 'GET', '/a', 30],
    ['2024-05-06T11:00:00.000Z', '2024-05-06T12:00:00.000Z', 'user-1', 'POST', '/b', 0.5],
  ])

  const filtered = await sdk.query(slug, {
    filterGroupBy: { method: 'POST' },
    from: time('00:00:00'),
    to: time('23:00:00'),
  })
  assert.deepEqual(filtered.data.map((row) => row.value), [0.5])
})

await step('events.list', async () => {
  const items = await sdk.listEvents()
  const ours = items.filter((item) => item.event.type === type)
  assert.equal(ours.length, 5)
  const first = ours.find((item) => item.event.id === `id-${version}`)
  assert.equal(first.event.source, 'my-app')
  assert.deepEqual(first.event.data, { method: 'GET', path: '/a', duration_ms: 10 })
  assert.equal(first.validationError, undefined)
  assert.ok(!Number.isNaN(new Date(first.ingestedAt).valueOf()))
  const limited = await sdk.listEvents({ limit: 2, subject: 'user-1', to: time('23:00:00') })
  assert.equal(limited.length, 2)
  assert.ok(limited.every((item) => item.event.subject === 'user-1'))
})

await step('meters.list, get, subjects', async () => {
  const meters = await sdk.listMeters()
  assert.ok(meters.some((meter) => meter.slug === slug))
  const meter = await sdk.getMeter(slug)
  assert.equal(meter.aggregation, 'SUM')
  assert.equal(meter.eventType, type)
  assert.equal(meter.valueProperty, '$.duration_ms')
  assert.deepEqual(meter.groupBy, { method: '$.method', path: '$.path' })
  assert.equal((await sdk.getMeter(meter.id)).slug, slug)
  assert.deepEqual((await sdk.meterSubjects(slug)).sort(), ['user-1', 'user-2'])
})

await step('errors', async () => {
  const missing = await refusal(() => sdk.getMeter('no_such_meter'))
  assert.equal(missing.status, 404)
  assert.equal(missing.title, 'Not Found')
  const bad = await refusal(() => sdk.query(slug, { groupBy: ['colour'] }))
  assert.equal(bad.status, 400)
  assert.match(bad.detail, /colour/)
})

await step('subjects', async () => {
  const metadata = { plan: 'gold' }
  await sdk.upsertSubjects([{ key: 'customer-1', displayName: 'ACME', metadata }, { key: 'customer-2' }])
  const [updated] = await sdk.upsertSubjects([{ key: 'customer-1', displayName: 'ACME Inc.' }])
  assert.equal(updated.displayName, 'ACME Inc.')
  const keys = (await sdk.listSubjects()).map((subject) => subject.key)
  assert.ok(keys.includes('customer-1') && keys.includes('customer-2'))
  const subject = await sdk.getSubject('customer-1')
  assert.equal(subject.displayName, 'ACME Inc.')
  assert.deepEqual(subject.metadata, metadata)
  assert.equal(await sdk.deleteSubject('customer-1'), undefined)
  assert.equal((await refusal(() => sdk.getSubject('customer-1'))).status, 404)
})

await step('portal', async () => {
  const created = await sdk.createToken({ subject: 'user-1', allowedMeterSlugs: [slug] })
  assert.equal(created.subject, 'user-1')
  assert.ok(created.id && new Date(created.expiresAt) > new Date())
  const { data } = await sdk.portalQuery(created.token, slug)
  assert.deepEqual(data.map((row) => row.value), [30.5])
  assert.equal(await sdk.invalidateTokens(), undefined)
  const invalidated = Date.now()
  await eventually('the token is refused', async () => {
    return (await refusal(() => sdk.portalQuery(created.token, slug)))?.status === 401
  })
  assert.ok(Date.now() - invalidated < 1500)
})

async function step(name, run) {
  try {
    await run()
  } catch (error) {
    console.error(`${version} ${name}:`, error, sdk.problem(error))
    process.exit(1)
  }
  console.log(`${version} ${name}`)
}
