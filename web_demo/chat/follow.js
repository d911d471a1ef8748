// @ts-check
/** Keeps the end of a conversation in sight while it grows, unless a person has gone up to read. */

const AT_END = 80; // pixels from the end that still count as the end
const FAR = 160; // from which on a way back is offered

/** @typedef {ReturnType<typeof createFollower>} Follower */

/**
 * @param {HTMLElement} scroll the element that scrolls
 * @param {(far: boolean) => void} onfar called with whether the end is far away
 */
export function createFollower(scroll, onfar) {
  let atEnd = true;
  let far = false;
  let within = false; // a change of several parts, which is followed as a whole

  /** Find out where the page is; only when it was scrolled, because asking costs a layout. */
  function look() {
    const left = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    atEnd = left < AT_END;
    if (far !== left >= FAR) {
      far = !far;
      onfar(far);
    }
  }

  /** @param {() => void} change */
  function together(change) {
    within = true;
    try {
      change();
    } finally {
      within = false;
    }
  }

  function toEnd() {
    atEnd = true;
    scroll.scrollTop = scroll.scrollHeight;
  }

  scroll.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(() => atEnd && toEnd()).observe(scroll);
  return {
    /** Let the conversation grow. @param {() => void} change */
    grow(change) {
      if (within) return change();
      together(change);
      if (atEnd) scroll.scrollTop = scroll.scrollHeight;
      else look();
    },
    /** Let the conversation grow above of what is in sight. @param {() => void} change */
    keep(change) {
      const left = scroll.scrollHeight - scroll.scrollTop;
      together(change);
      scroll.scrollTop = scroll.scrollHeight - left;
    },
    toEnd,
    toTop() {
      atEnd = false;
      scroll.scrollTop = 0;
    },
  };
}
