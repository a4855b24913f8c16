// Package envelope writes answers in the shape that a service has documented:
// successes, refusals of every other package of this module, routes that do not
// exist, and panics alike.
//
//	env, err := envelope.New(envelope.Config{Wrap: true})
//	...
//	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
//		note, err := notes.Find(r.PathValue("id"))
//		if err != nil {
//			usher.Fail(w, r, err)
//			return
//		}
//		envelope.For(w, r).Value(note)
//	})
//	http.ListenAndServe(addr, env.Wrap(auth.Wrap(mux)))
//
// New code writes through [For], [usher.Respond] and [usher.Fail]. What existing
// handlers write themselves is put into the shape if [Config.Wrap] says so.
//
// # What is wrapped
//
// With [Config.Wrap], an answer of 200 to 299 whose Content-Type is
// application/json becomes the data of the shape, without being decoded, copied
// or held back. An error, that is 400 or more, is replaced by one of the shape if
// it is text/plain, has no Content-Type or has no body; so is JSON, by shapes
// that also wrap successes. Below 500, one short line of text becomes the message
// and JSON of up to 64 KiB the details; from 500 on nothing that the handler
// wrote is shown, as that is where texts of databases end up: it goes to
// [Config.OnError] instead.
//
// Everything else passes untouched: redirects; 204, 205, 206 and 304; parts of a
// body; bodies below 500 that were compressed further in; announced trailers; any
// other media type, such as
// text/event-stream, application/x-ndjson and application/problem+json; JSON
// without a Content-Type, which the server takes for text; and connections that
// are taken over. Flushing never holds anything back and never adds anything. An
// answer to HEAD has the header that GET would get, without a Content-Length.
// Handlers of documents with a form of their own stand in [Untouched].
//
// Fields that describe the handler's bytes are removed: Content-Length,
// Accept-Ranges and the digests. A strong entity tag becomes weak unless the
// shape is [Shape.Constant], and with it a 304 to a client that has the weak one.
// If-Match never matches a weak tag, so a service that needs that for updates
// takes a constant shape or writes its tag into the data.
//
// # Guarantees
//
//   - An answer is put into the shape once, also through http.TimeoutHandler and
//     through an envelope within an envelope; the innermost decides.
//   - There is never a second body.
//   - What has failed never looks like a whole success. Once the status of a success
//     has been sent, the connection is aborted by [usher.Fail], by a panic, and under
//     [Config.Wrap] by a body that is shorter than the Content-Length that the handler
//     has declared, as the server itself would do, and by an error status that comes
//     too late, as from a recoverer. [Config.OnError] is told.
//   - A panic before that becomes a 500. Neither the value nor the stack is
//     shown to a client. http.ErrAbortHandler passes on.
//   - The private cause of an error is never sent; [Config.OnError] gets it.
//   - Every answer carries X-Request-Id; one of the client's is taken over only if
//     it is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
//
// Behind a wrapped writer http.MaxBytesReader cannot tell the server that a body is
// too large (golang/go#73754), and the server would reset the connection under a
// response that the client has not read yet. The envelope sees to it that every
// error reaches a client that is still sending, also one that the handler wrote.
//
// # Order
//
// The envelope stands outside of everything that may refuse a request, or those
// refusals have another shape. Compression stands outside the envelope: the
// Content-Encoding that a request enters with is that of a compressor which has yet to
// see the body, and stays. Compression inside leaves nothing to wrap but refusals and
// failures. Servers of whole HTML pages are mounted beside the envelope, not inside.
package envelope
