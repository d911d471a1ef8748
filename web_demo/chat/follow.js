// @ts-check
/** Keeps the end of a conversation in sight while it grows, unless a person has gone up to read. */

const AT_END = 80; // pixels from the end that still count as the end
const FAR = 160; // from which on a way back is offered

/** @typedef {ReturnType<typeof createFollower>} Follower */

/**
 * @param {HTMLElement} scroll the element that scrolls
 * @param {(far: boolean) => void} onfar called with whether the end is far away
 * @param {() => boolean} begun whether there is a conversation; a welcome is read from its top
 */
export function createFollower(scroll, onfar, begun) {
  let atEnd = true;
  let far = false;
  let top = 0; // where it was looked at last

  /** Find out where the page is; only when it was scrolled, because asking costs a layout. */
  function look() {
    const left = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    const up = scroll.scrollTop < top;
    top = scroll.scrollTop;
    if (left < AT_END) atEnd = true;
    else if (up) atEnd = false; // else it has only grown, and is not followed yet
    if (far !== left >= FAR) {
      far = !far;
      onfar(far);
    }
  }

  function toEnd() {
    atEnd = true;
    scroll.scrollTop = scroll.scrollHeight;
  }

  scroll.addEventListener("scroll", look, { passive: true });
  // Who asks for the height of a conversation while it changes has it laid out then; here it has just been.
  const sizes = new ResizeObserver(() => (atEnd && begun() ? toEnd() : look()));
  sizes.observe(scroll);
  for (const inside of scroll.children) sizes.observe(inside);
  return {
    /** Let the conversation grow above of what is in sight. @param {() => void} change */
    keep(change) {
      const left = scroll.scrollHeight - scroll.scrollTop;
      change();
      scroll.scrollTop = scroll.scrollHeight - left;
    },
    toEnd,
    toTop() {
      atEnd = false;
      scroll.scrollTop = 0;
    },
  };
}
