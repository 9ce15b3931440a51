// A long press of a finger, which takes the place of the buttons that a mouse finds by hovering.

const LENGTH_MS = 450;
const MAX_MOVE = 10; // pixels; beyond, the finger scrolls

/** Call `pressed(event)` when a finger rests on the element. The click that would follow is left out. */
export function onLongPress(element, pressed) {
  let timer = null;
  let start = null;
  let isPressed = false;
  const stop = () => { clearTimeout(timer); timer = null; };
  element.addEventListener("pointerdown", (event) => {
    isPressed = false;
    if (event.pointerType === "mouse") return;
    start = event;
    stop();
    timer = setTimeout(() => { isPressed = true; pressed(event); }, LENGTH_MS);
  });
  element.addEventListener("pointermove", (event) => {
    if (timer !== null && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > MAX_MOVE) stop();
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) element.addEventListener(name, stop);
  element.addEventListener("contextmenu", (event) => { if (isPressed || timer !== null) event.preventDefault(); });
  element.addEventListener("click", (event) => {
    if (!isPressed) return;
    isPressed = false;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, { capture: true });
}
