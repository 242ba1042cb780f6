// node webhook.mjs: reads {secret, headers, body} from stdin and verifies as a receiver would.
import { readFileSync } from 'node:fs'

import { Webhook } from 'standardwebhooks'

const { secret, headers, body } = JSON.parse(readFileSync(0, 'utf8'))
const webhook = new Webhook(secret)
const seen = webhook.verify(body, headers)

let refused = false
try {
  webhook.verify(body + ' ', headers)
} catch {
  refused = true
}
if (!refused) throw new Error('a changed body was accepted')
console.log(JSON.stringify(seen))
