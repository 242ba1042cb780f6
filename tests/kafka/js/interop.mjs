// The JavaScript CloudEvents SDK over kafkajs, as a reader and as a producer.
//   node interop.mjs read BOOTSTRAP TOPIC COUNT   writes one JSON object a line
//   node interop.mjs write BOOTSTRAP TOPIC        reads a JSON array of {mode, event} from stdin
import { readFileSync } from "node:fs";
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, logLevel } from "kafkajs";

const [action, bootstrap, topic, count] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR });

async function read(wanted) {
  const consumer = kafka.consumer({ groupId: `${topic}-js` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise((resolve, reject) => {
    consumer
      .run({
        eachMessage: async ({ message }) => {
          const headers = Object.fromEntries(
            Object.entries(message.headers).map(([name, value]) => [name, value.toString()]),
          );
          const event = Binding.toEvent({ ...message, headers, value: message.value.toString() });
          event.validate();
          const line = { namespace: headers["meterline-namespace"], event };
          console.log(JSON.stringify(line));
          if (--wanted === 0) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
}

async function write(events) {
  const producer = kafka.producer();
  await producer.connect();
  for (const { mode, event } of events) {
    const message = Binding[mode](new CloudEvent(event));
    const value =
      typeof message.value === "string" || Buffer.isBuffer(message.value)
        ? message.value
        : JSON.stringify(message.value);
    const headers = Object.fromEntries(
      Object.entries(message.headers).filter(([, text]) => text !== undefined),
    );
    await producer.send({ topic, messages: [{ headers, key: message.key, value }] });
  }
  await producer.disconnect();
}

if (action === "read") await read(Number(count));
else await write(JSON.parse(readFileSync(0, "utf-8")));
