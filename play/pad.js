// The canvas to draw on. After each stroke the component's value is what is drawn, a PNG; "" when it is cleared.
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
let last = null; // where the pen is while it is down

function wipe() {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function place(event) {
  const shown = canvas.getBoundingClientRect();
  const scale = canvas.width / shown.width;
  return [(event.clientX - shown.left) * scale, (event.clientY - shown.top) * scale];
}

function draw(to) {
  pen.strokeStyle = "white";
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = canvas.width / 12; // 2 to 3 of MNIST's pixels
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...to);
  pen.stroke();
  last = to;
}

function lift() {
  if (last === null) return;
  last = null;
  props.value = canvas.toDataURL("image/png");
  trigger("input");
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId); // a stroke may leave the canvas and come back
  last = place(event);
  draw(last);
});
canvas.addEventListener("pointermove", (event) => {
  if (last === null) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) draw(place(part));
});
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
element.querySelector("button").addEventListener("click", () => {
  wipe();
  props.value = "";
  trigger("input");
});
wipe();
canvas.classList.add("ready");
