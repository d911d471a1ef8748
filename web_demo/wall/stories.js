// @ts-check
/** What the wall asks for: a story about each of these, and on a larger wall another one. */

const SUBJECTS = [
  "a lighthouse keeper", "a fox named Zorvan", "a clockmaker", "a dragon", "a baker", "a robot", "a wolf", "a ship",
  "a gardener", "an owl", "a painter named Ilva", "a whale", "a postman", "a violin", "a beekeeper", "a moth",
  "a tailor", "a river", "a pilot", "a mouse", "a cook named Bram", "a comet", "a shepherd", "a diver",
  "a librarian", "a giant", "a sailor named Tamsin", "a blacksmith", "a raven", "a fisherman", "a witch", "a train",
];

/**
 * @param {number} index of a tile
 * @param {string} prompt what a person wants of every tile instead; empty for the stories
 */
export function storyOf(index, prompt) {
  const subject = SUBJECTS[index % SUBJECTS.length];
  return prompt ? { title: `${index + 1}`, prompt } : { title: subject, prompt: `Tell me a story about ${subject}` };
}
