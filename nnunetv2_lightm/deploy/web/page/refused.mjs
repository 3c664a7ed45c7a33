// What a user gave cannot be used; the message says what it is, what is needed, and is shown as it is.
export class Refused extends Error {}
