// Connects with npm ws, sends messages of every size and kind and prints what it saw as one line of JSON.
import WebSocket from "ws";

const sizes = [0, 1, 125, 126, 65535, 65536, 300000];
const messages = sizes.flatMap((size) => ["x".repeat(size), Buffer.alloc(size, 7)]).concat("né ☃ 𝄞");
const seen = { echoed: 0, wrong: 0, pong: false, protocol: null };
const socket = new WebSocket(process.argv[2], ["other", "chat"]);

socket.on("open", () => {
  seen.protocol = socket.protocol;
  socket.ping("are you there");
  for (const message of messages) socket.send(message);
});
socket.on("pong", (payload) => {
  seen.pong = payload.toString() === "are you there";
});
socket.on("message", (data, isBinary) => {
  const expected = messages[seen.echoed++];
  const same = Buffer.compare(data, Buffer.from(expected)) === 0 && isBinary === (typeof expected !== "string");
  if (!same) seen.wrong++;
  if (seen.echoed === messages.length) socket.close(4001, "done");
});
socket.on("close", (code, reason) => {
  console.log(JSON.stringify({ ...seen, sent: messages.length, code, reason: reason.toString() }));
});
socket.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
