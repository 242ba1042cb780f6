// node notifications.mjs VERSION BASE_URL: every notification call of the SDK.
import assert from 'node:assert/strict'

const [version, baseUrl] = process.argv.slice(2)
const { OpenMeter } = await import(`openmeter-${version}`)
const openmeter = new OpenMeter({ baseUrl })
const { channels, rules, events } = openmeter.notification ?? openmeter.notifications

const channel = await channels.create({
  type: 'WEBHOOK',
  name: 'customer-webhook',
  url: 'https://example.com/webhook',
  customHeaders: { 'User-Token': 'x' },
  signingSecret: 'whsec_S6g2HLnTwd9AhHwUIMFggVS9OfoPafN8',
})
assert.equal((await channels.get(channel.id)).signingSecret, channel.signingSecret)
const pages = await channels.list({ includeDisabled: true, page: 1, pageSize: 10 })
assert.ok(pages.items.some((one) => one.id === channel.id))
console.log('channels')

const body = {
  type: 'entitlements.balance.threshold',
  name: 'rule',
  channels: [channel.id],
  thresholds: [
    { type: 'usage_percentage', value: 80.5 },
    { type: 'NUMBER', value: 100 },
  ],
}
const rule = await rules.create(body)
assert.deepEqual(rule.channels, [{ id: channel.id, type: 'WEBHOOK' }])
assert.deepEqual((await rules.get(rule.id)).thresholds, body.thresholds)
assert.equal((await rules.list({ channel: [channel.id] })).totalCount, 1)
console.log('rules')

const made = await fetch(`${baseUrl}/api/v1/notification/rules/${rule.id}/test`, { method: 'POST' })
assert.equal(made.status, 201)
const { id } = await made.json()
const event = await events.get(id)
assert.equal(event.payload.type, 'entitlements.balance.threshold')
assert.equal(event.deliveryStatus.length, 1)
const listed = await events.list({ rule: [rule.id], from: new Date(Date.now() - 60_000) })
assert.deepEqual(listed.items.map((one) => one.id), [id])
if (events.resend) assert.equal(await events.resend(id, {}), undefined)
console.log('events')

if (channels.update) {
  const { type, name, url } = channel
  const changed = await channels.update(channel.id, { type, name, url, disabled: true })
  assert.equal(changed.disabled, true)
  assert.equal((await rules.update(rule.id, { ...body, name: 'other' })).name, 'other')
}
await rules.delete(rule.id)
await channels.delete(channel.id)
assert.equal((await channels.list({ includeDisabled: true })).totalCount, 0)
console.log('deleted')
