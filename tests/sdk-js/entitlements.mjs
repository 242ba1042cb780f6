// node entitlements.mjs VERSION BASE_URL [TOKEN]: features, entitlements and grants by the SDK.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

import { adapter } from './adapters.mjs'

const [version, baseUrl, token] = process.argv.slice(2)
const sdk = await adapter(version, baseUrl, token)
const subject = `team/${version}`
const meterSlug = `entitled_${version}`
const key = `ai_tokens_${version}`
const monthly = {
  type: 'metered',
  featureKey: key,
  usagePeriod: { interval: 'MONTH', anchor: '2024-01-31T00:00:00Z' },
  measureUsageFrom: 'CURRENT_PERIOD_START',
  issueAfterReset: 1000,
  issueAfterResetPriority: 6,
}

async function value(what, fits) {
  const deadline = Date.now() + 15_000
  for (;;) {
    const answer = await sdk.value(subject, key)
    if (fits(answer)) return answer
    if (Date.now() > deadline) throw new Error(`never: ${what}: ${JSON.stringify(answer)}`)
    await pause(20)
  }
}

async function refusal(call) {
  try {
    await call()
  } catch (error) {
    return sdk.problem(error)
  }
  throw new Error('it was not refused')
}

const state = {}

await step('features', async () => {
  const meter = { slug: meterSlug, eventType: meterSlug, aggregation: 'SUM' }
  await sdk.createMeter({ ...meter, valueProperty: '$.tokens', groupBy: { model: '$.model' } })
  const filters = { model: 'large' }
  const made = await sdk.createFeature({ key, name: 'AI Tokens', meterSlug, meterGroupByFilters: filters })
  assert.deepEqual(made.meterGroupByFilters, filters)
  assert.equal((await sdk.getFeature(key)).id, made.id)
  assert.equal((await sdk.getFeature(made.id)).key, key)
  assert.ok((await sdk.listFeatures()).some((one) => one.key === key))
  assert.equal((await refusal(() => sdk.createFeature({ key, name: 'again' }))).status, 409)
  state.featureId = made.id
})

await step('entitlements', async () => {
  const made = await sdk.entitle(subject, monthly)
  assert.deepEqual([made.type, made.subjectKey, made.featureId], ['metered', subject, state.featureId])
  const again = await refusal(() => sdk.entitle(subject, monthly))
  assert.equal(again.status, 409)
  assert.equal(again.extensions.conflictingEntityId, made.id)
  assert.equal((await sdk.entitlement(made.id)).featureKey, key)
  assert.deepEqual((await sdk.entitlements({ subject: [subject] })).map((one) => one.id), [made.id])
  state.id = made.id
})

await step('usage', async () => {
  const model = 'large'
  const time = new Date(Date.now() - 1000)
  const event = { type: meterSlug, subject, time }
  await sdk.ingest([
    { ...event, data: { tokens: 0.1, model } },
    { ...event, data: { tokens: '0.2', model } },
    { ...event, data: { tokens: 500, model: 'small' } },
  ])
  const found = await value('0.3 tokens are used', ({ usage }) => usage !== 0)
  assert.deepEqual([found.hasAccess, found.usage, found.balance, found.overage], [true, 0.3, 999.7, 0])
  assert.equal(found.totalAvailableGrantAmount, 1000)
  for (const ref of [state.id, state.featureId]) {
    assert.equal((await sdk.value(subject, ref)).usage, 0.3)
  }
  assert.equal((await sdk.valueAt(subject, key, new Date(time - 1000))).usage, 0)
})

await step('grants', async () => {
  const made = await sdk.grant(subject, key, {
    amount: 100,
    priority: 1,
    effectiveAt: '2023-01-01T00:00:00Z',
    expiration: { duration: 'YEAR', count: 100 },
    minRolloverAmount: 0,
    maxRolloverAmount: 100,
    recurrence: { interval: 'YEAR' },
  })
  assert.deepEqual([made.amount, made.entitlementId], [100, state.id])
  const found = await sdk.value(subject, key)
  assert.deepEqual([found.balance, found.grantBalances[made.id]], [1099.7, 99.7])
  const amounts = (await sdk.grants(subject, key)).map((one) => one.amount)
  assert.deepEqual(amounts, [1000, 100])
  assert.equal((await sdk.allGrants({ subject: [subject] })).length, 2)
  await sdk.voidGrant(made.id)
  assert.equal((await refusal(() => sdk.voidGrant(made.id))).status, 400)
  assert.equal((await sdk.value(subject, key)).balance, 1000)
})

await step('history', async () => {
  const { windowedHistory, burndownHistory } = await sdk.history(subject, key, { windowSize: 'DAY' })
  assert.equal(burndownHistory.at(-1).balanceAtEnd, 1000)
  assert.ok(windowedHistory.every((one) => one.usage >= 0))
  const days = await sdk.history(subject, key)
  assert.equal(days.windowedHistory.length, windowedHistory.length)
})

await step('reset', async () => {
  assert.equal(await sdk.reset(subject, key, { retainAnchor: true }), undefined)
  const found = await sdk.value(subject, key)
  assert.deepEqual([found.usage, found.balance], [0, 1000])
  const future = { effectiveAt: new Date(Date.now() + 3_600_000) }
  assert.match((await refusal(() => sdk.reset(subject, state.id, future))).detail, /future/)
})

await step('override and delete', async () => {
  const other = await sdk.override(subject, key, { ...monthly, issueAfterReset: 7, isSoftLimit: true })
  assert.notEqual(other.id, state.id)
  await value('the new one counts', ({ totalAvailableGrantAmount: all }) => all === 7)
  assert.deepEqual(await sdk.entitlements({ subject: [subject], entitlementType: ['boolean'] }), [])
  await sdk.endEntitlement(subject, key)
  assert.deepEqual(await sdk.value(subject, other.id), { hasAccess: false })
  assert.deepEqual(await sdk.entitlements({ subject: [subject] }), [])
  assert.equal(await sdk.deleteFeature(key), undefined)
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
