// Package envelope writes the responses of a service in the shape that the service has
// documented: successes, refusals by every other package of this module, unknown
// routes, and panics.
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
// New code writes through [For], [usher.Respond] and [usher.Fail]. With [Config.Wrap] the
// envelope also puts what existing handlers write themselves into the shape.
//
// # What is wrapped
//
// With [Config.Wrap], a response of 200 to 299 whose Content-Type is application/json
// becomes the data of the shape, without being decoded, copied or delayed. A response of
// 400 or more is replaced with an error of the shape if it is text/plain, has no
// Content-Type or has no body; shapes that wrap successes also replace JSON. Below 500,
// one short line of text becomes the message, and JSON of up to 64 KiB the details. From
// 500 on, [Config.OnError] gets what the handler wrote, and the client sees none of it,
// as such responses often contain database errors.
//
// Everything else passes unchanged: redirects; 204, 205, 206 and 304; parts of a body;
// bodies below 500 that an inner compressor has encoded; responses that announce
// trailers; every other media type, such as text/event-stream, application/x-ndjson and
// application/problem+json; JSON without a Content-Type, which the server detects as
// text; JSON that the client saves as a file (Content-Disposition: attachment); a success
// whose first bytes begin no JSON value in UTF-8, but a byte order mark, )]}' or a call of
// JSONP; and hijacked connections. More than the first bytes of a success is not checked:
// a second value after the first, or members after a value without braces, would break
// the shape. Flushing delays no success and adds nothing; an error that is replaced is sent
// when its handler has returned. A response to
// HEAD has the header of the response to GET, without a Content-Length. [Untouched] and
// [Config.Untouched] exempt documents whose form a standard fixes; those that this module
// serves, such as key sets, are never wrapped.
//
// The envelope removes the fields that describe the bytes of the handler: Content-Length,
// Accept-Ranges and the digests. A strong entity tag gets the suffix "-wrapped", and
// becomes weak unless the shape is [Shape.Constant]: the wrapped response has other bytes.
// If-Match and If-None-Match with such a tag reach the handler with its own tag, so they
// work with every shape. A download is never resumed with bytes of the handler: If-Range
// with such a tag does not match, the handler does not see Range for a path that ends in
// .json or for several ranges of bytes, and other JSON that a handler sends in parts of
// bytes is refused with 400. Files of other types keep their tags and their ranges, one
// in each request.
//
// # Guarantees
//
//   - A response is put into a shape only once, even through http.TimeoutHandler or
//     nested envelopes; the innermost envelope decides.
//   - There is never a second body.
//   - A failure never looks like a complete success. Once the status of a success has
//     been sent, these abort the connection: [usher.Fail]; a panic; and under
//     [Config.Wrap] an error status that comes too late, for instance from a recoverer;
//     an object, an array or a string whose last byte does not close it, as when a
//     recoverer stays silent (if its last byte does, what follows the data is no JSON);
//     and a body shorter than the Content-Length that the handler declared, for which the
//     server itself would abort too. [Config.OnError] is called, or [Config.OnPanic] for
//     a panic.
//   - A panic before that becomes a 500. No client sees the value or the stack. The
//     envelope passes http.ErrAbortHandler on.
//   - The private cause of an error is never sent; [Config.OnError] gets it.
//   - Every response has one X-Request-Id, whatever a middleware or an upstream inside sets.
//     The same ID is in the body, in the logs, on the span as usher.request.id, and what
//     [RequestID] returns. No client chooses it unless [Config.RequestID] lets it.
//
// Through a wrapped writer, http.MaxBytesReader cannot make the server close the
// connection after a body that is too large (golang/go#73754), and the server would reset
// the connection before the client has read the response. With the envelope, every error
// reaches a client that is still sending, even an error that the handler wrote itself.
//
// # Order
//
// Put the envelope outside everything that may refuse a request, so that refusals have
// its shape, and so that the replays of package idempotency have the metadata of their own
// requests. Put a clientip.Resolver directly inside it, where the Resolver costs
// nothing, or outside. Put compression outside the envelope: a Content-Encoding that is
// set before the envelope belongs to a compressor that will encode the body, and stays.
// With compression inside, only refusals and failures can be put into the shape. Put
// tracing outside too: the request ID, the code of an error and a panic are noted on the
// span that has begun. A recoverer that reports panics goes outside, with
// [Config.PassPanics]; one inside responds in place of the envelope. Mount servers of HTML
// pages beside the envelope, not inside it.
package envelope
