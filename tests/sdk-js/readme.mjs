// node readme.mjs BASE_URL: every snippet of the README of @openmeter/sdk@1.0.0-beta.185, as it
// stands in the package, each with what it must answer.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'

import * as sdk from 'openmeter-185'

const [baseUrl] = process.argv.slice(2)
const openmeter = new sdk.OpenMeter({ baseUrl })
const text = await readFile(new URL('node_modules/openmeter-185/README.md', import.meta.url), 'utf8')

// Snippets by the two headings above them, such as `Subject/createEntitlement`.
function snippetsOf(markdown) {
  const found = new Map()
  let section = ''
  let title = ''
  for (const [, hashes, heading, code] of markdown.matchAll(/^(#+) (.*)$|^```ts\n([^]*?)^```$/gm)) {
    if (code !== undefined) {
      const name = `${section}/${title}`
      assert.ok(!found.has(name), `two snippets are called ${name}`)
      found.set(name, code)
    } else if (hashes.length <= 3 && heading !== 'batch ingest') {
      section = title = heading
    } else {
      title = heading
    }
  }
  return found
}

// What TypeScript would remove, the address, and the placeholder of a slug (which may have no
// hyphens). Nothing else of a snippet is changed, but for a quote that is missing in one of them.
function prepared(code) {
  return code
    .replace(/^import .*$/gm, '')
    .replace(/^const (\w+): \w+ =/gm, 'const $1 =')
    .replace('http://localhost:8888', baseUrl)
    .replace("'my-meter-slug'", "'my_meter_slug'")
    .replace("'ai_tokens)", "'ai_tokens')")
}

const AsyncFunction = (async () => {}).constructor
const [event1, event2, event3] = [1, 2, 3].map((n) => ({
  type: 'batch',
  subject: 'customer-1',
  data: { n },
}))

// The value of the snippet's last constant.
async function run(code) {
  const given = { ...sdk, event1, event2, event3 }
  if (!code.includes('new OpenMeter(')) given.openmeter = openmeter
  const last = [...prepared(code).matchAll(/^const (\w+) =/gm)].at(-1)?.[1]
  const body = `${prepared(code)}\nreturn ${last}`
  return await new AsyncFunction(...Object.keys(given), body)(...Object.values(given))
}

const sum = { aggregation: 'SUM', valueProperty: '$.tokens' }
await openmeter.meters.create({ slug: 'm1', eventType: 'my-type', aggregation: 'COUNT' })
await openmeter.meters.create({ slug: 'tokens_total', eventType: 'tokens', ...sum })
await openmeter.meters.create({
  slug: 'my_meter_slug',
  eventType: 'request',
  aggregation: 'COUNT',
  groupBy: { method: '$.method', path: '$.path' },
})

// In the order of the README, but a feature is there before its entitlements, what removes
// something comes last, and a subject is looked at before it is deleted.
const steps = [
  ['Example/Example', (meter) => assert.equal(meter.slug, 'm1')],
  ['Events/ingest'],
  ['Events/batch ingest'],
  ['Events/list', (events) => assert.ok(Array.isArray(events))],
  ['Meters/list', (meters) => assert.equal(meters.length, 3)],
  ['Meters/get', (meter) => assert.equal(meter.aggregation, 'COUNT')],
  ['Meters/query', (values) => assert.deepEqual([values.windowSize, values.data], ['HOUR', []])],
  ['Meters/meter subjects', (subjects) => assert.deepEqual(subjects, [])],
  ['Portal/createToken', (token) => assert.equal(token.subject, 'customer-1')],
  ['Portal/invalidateTokens'],
  ['Subject/upsert', ([subject]) => assert.equal(subject.displayName, 'ACME')],
  ['Subject/list', (subjects) => assert.equal(subjects[0].key, 'customer-1')],
  ['Subject/get', (subject) => assert.equal(subject.displayName, 'ACME')],
  ['Subject/delete'],
  ['Features/create', (feature) => {
    assert.deepEqual([feature.key, feature.name, feature.meterSlug], ['ai_tokens', 'AI Tokens', 'tokens_total'])
  }],
  ['Features/list', (features) => assert.equal(features[0].key, 'ai_tokens')],
  ['Features/get', (feature) => assert.equal(feature.key, 'ai_tokens')],
  ['Subject/createEntitlement', (entitlement) => {
    assert.equal(entitlement.type, 'metered')
    assert.equal(entitlement.issueAfterReset, 10_000_000)
    assert.equal(entitlement.usagePeriod.interval, 'MONTH')
  }],
  ['Subject/listEntitlements', (all) => assert.deepEqual(all.map((one) => one.featureKey), ['ai_tokens'])],
  ['Subject/getEntitlement', (entitlement) => assert.equal(entitlement.subjectKey, 'customer-1')],
  ['Subject/getEntitlementValue', (value) => {
    assert.deepEqual([value.hasAccess, value.balance, value.usage, value.overage], [true, 10_000_000, 0, 0])
  }],
  // It names no window size and means days. Today began before measurement did.
  ['Subject/getEntitlementHistory', (history) => {
    assert.ok(history.windowedHistory.length <= 1)
    assert.equal(history.burndownHistory.at(-1).balanceAtEnd, 10_000_000)
  }],
  // Its arguments are wrong: the options stand where the feature belongs.
  ['Subject/resetEntitlementUsage', (error) => {
    assert.equal(error.statusCode, 404)
    assert.match(error.problem.detail, /\[object Object\]/)
    assert.match(error.problem.detail, /resetEntitlementUsage\(subject, featureKey, options\)/)
  }],
  // It starts in 2023, before there was any entitlement, and ends twelve hours later.
  ['Subject/createEntitlementGrant', (grant) => {
    assert.deepEqual([grant.amount, grant.effectiveAt], [100, '2023-01-01T00:00:00Z'])
    assert.equal(grant.expiresAt, '2023-01-01T12:00:00Z')
  }],
  ['Subject/listEntitlementGrants', (grants) => {
    assert.deepEqual(grants.map((one) => one.amount), [10_000_000, 100])
  }],
  ['Grants/list', (grants) => assert.equal(grants.length, 2)],
  ['Subject/deleteEntitlement'],
  ['Features/delete'],
]

const snippets = snippetsOf(text)
assert.deepEqual([...snippets.keys()].sort(), steps.map(([name]) => name).sort())
for (const [name, check] of steps) {
  try {
    const isWrong = name === 'Subject/resetEntitlementUsage'
    const answer = await (isWrong ? refusal(snippets.get(name)) : run(snippets.get(name)))
    check?.(answer)
  } catch (error) {
    console.error(name, error, error.problem)
    process.exit(1)
  }
  console.log(name)
}
// The same with the arguments that were meant.
await openmeter.features.create({ key: 'ai_tokens', name: 'AI Tokens', meterSlug: 'tokens_total' })
await openmeter.subjects.createEntitlement('customer-1', {
  type: 'metered',
  featureKey: 'ai_tokens',
  usagePeriod: { interval: 'MONTH' },
})
await new Promise((done) => setTimeout(done, 20)) // a reset is after the start of measurement
await openmeter.subjects.resetEntitlementUsage('customer-1', 'ai_tokens', { retainAnchor: true })

async function refusal(code) {
  try {
    await run(code)
  } catch (error) {
    return error
  }
  throw new Error('it was not refused')
}
