package aws

import (
	"errors"
	"fmt"
)

// ErrorKind is a row of the error table: what a client sees of one kind of error
// and how its retry logic takes it. An ErrorKind is an error itself so that
// errors.Is(err, aws.ResourceNotFound) tells whether err is of the kind.
type ErrorKind struct {
	// Name is the error's name on the wire.
	Name string
	// Status is the HTTP status.
	Status int
	// Retryable tells whether AWS's clients send the request again by themselves.
	Retryable bool
	// Text is the message when there is nothing more exact to say.
	Text string
}

// Error returns the kind's name.
func (k *ErrorKind) Error() string { return k.Name }

// New returns an error of the kind with a message.
func (k *ErrorKind) New(format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Default returns an error of the kind with the kind's own text.
func (k *ErrorKind) Default() *Error { return &Error{Kind: k, Message: k.Text} }

// Wrap returns an error of the kind that a client sees with the kind's own text
// and that unwraps to cause, which goes to the log and not to the client.
func (k *ErrorKind) Wrap(cause error) *Error { return &Error{Kind: k, Message: k.Text, Cause: cause} }

// Error is an answer that is not a success.
type Error struct {
	Kind    *ErrorKind
	Message string
	// Cause is for the log; clients don't see it.
	Cause error
}

// Error returns name, message and cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Kind.Name + ": " + e.Message + ": " + e.Cause.Error()
	}
	return e.Kind.Name + ": " + e.Message
}

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool { return target == error(e.Kind) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// AsError returns err as an *Error: itself if it is one or wraps one, otherwise an
// InternalFailure that wraps it.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var k *ErrorKind
	if errors.As(err, &k) {
		return k.Wrap(err)
	}
	return InternalFailure.Wrap(err)
}

// The error table: front-end errors first, then those of the services. Names,
// statuses and retry classes are those of the service models and of botocore's
// retry tables; AWS answers 400 also where HTTP has a better number.
var (
	UnknownOperation           = &ErrorKind{"UnknownOperationException", 400, false, ""}
	Serialization              = &ErrorKind{"SerializationException", 400, false, ""}
	Validation                 = &ErrorKind{"ValidationException", 400, false, "The input is not valid."}
	MissingAuthenticationToken = &ErrorKind{"MissingAuthenticationTokenException", 400, false, "Missing Authentication Token"}
	IncompleteSignature        = &ErrorKind{"IncompleteSignatureException", 400, false, "The request signature does not conform to AWS standards."}
	InvalidSignature           = &ErrorKind{"InvalidSignatureException", 400, false, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}
	UnrecognizedClient         = &ErrorKind{"UnrecognizedClientException", 400, false, "The security token included in the request is invalid."}
	ExpiredToken               = &ErrorKind{"ExpiredTokenException", 400, false, "The security token included in the request is expired"}
	RequestExpired             = &ErrorKind{"RequestExpired", 400, true, "Request has expired."}
	AccessDenied               = &ErrorKind{"AccessDeniedException", 400, false, "Access denied."}
	Throttling                 = &ErrorKind{"ThrottlingException", 400, true, "Rate exceeded"}
	RequestEntityTooLarge      = &ErrorKind{"RequestEntityTooLargeException", 413, false, "The request body is larger than this server takes."}
	InternalFailure            = &ErrorKind{"InternalFailure", 500, true, "Internal Service Failure"}
	ServiceUnavailable         = &ErrorKind{"ServiceUnavailable", 503, true, "The service is temporarily unavailable. Try again."}

	ResourceNotFound              = &ErrorKind{"ResourceNotFoundException", 400, false, "The requested resource was not found."}
	ResourceInUse                 = &ErrorKind{"ResourceInUseException", 400, false, "The resource is not available for this operation."}
	LimitExceeded                 = &ErrorKind{"LimitExceededException", 400, true, "The requested resource exceeds the maximum number allowed."}
	InvalidArgument               = &ErrorKind{"InvalidArgumentException", 400, false, "A parameter is not valid."}
	ProvisionedThroughputExceeded = &ErrorKind{"ProvisionedThroughputExceededException", 400, true, "Rate exceeded"}
	ExpiredIterator               = &ErrorKind{"ExpiredIteratorException", 400, false, "Iterator expired."}
	ExpiredNextToken              = &ErrorKind{"ExpiredNextTokenException", 400, false, "The pagination token has expired."}
	InternalFailureException      = &ErrorKind{"InternalFailureException", 500, true, "Internal Service Failure"}
	DryRunOperation               = &ErrorKind{"DryRunOperationException", 400, false, "Request would have succeeded, but the DryRun flag is set."}
	KMSAccessDenied               = &ErrorKind{"KMSAccessDeniedException", 400, false, "The key cannot be used: access denied."}
	KMSDisabled                   = &ErrorKind{"KMSDisabledException", 400, false, "The key is disabled."}
	KMSInvalidState               = &ErrorKind{"KMSInvalidStateException", 400, false, "The state of the key is not valid for this request."}
	KMSNotFound                   = &ErrorKind{"KMSNotFoundException", 400, false, "The key was not found."}
	KMSOptInRequired              = &ErrorKind{"KMSOptInRequired", 400, false, "The access key needs a subscription for the key service."}
	KMSThrottling                 = &ErrorKind{"KMSThrottlingException", 400, true, "The key service is throttling requests."}

	ConcurrentModification      = &ErrorKind{"ConcurrentModificationException", 400, false, "Another modification has already been made. Read the current version and try again."}
	InvalidKMSResource          = &ErrorKind{"InvalidKMSResourceException", 400, false, "The key cannot be used."}
	InvalidSource               = &ErrorKind{"InvalidSourceException", 400, false, "Only requests from the service that owns the delivery stream are accepted."}
	ServiceUnavailableException = &ErrorKind{"ServiceUnavailableException", 503, true, "The service is unavailable. Back off and retry the operation."}

	ConditionalCheckFailed = &ErrorKind{"ConditionalCheckFailedException", 400, false, "The conditional request failed"}
	TransactionCanceled    = &ErrorKind{"TransactionCanceledException", 400, false, "Transaction cancelled, please refer cancellation reasons for specific reasons"}
)

// ErrorTable is every kind of error above, in that order.
func ErrorTable() []*ErrorKind {
	return []*ErrorKind{
		UnknownOperation, Serialization, Validation, MissingAuthenticationToken, IncompleteSignature, InvalidSignature,
		UnrecognizedClient, ExpiredToken, RequestExpired, AccessDenied, Throttling, RequestEntityTooLarge, InternalFailure,
		ServiceUnavailable, ResourceNotFound, ResourceInUse, LimitExceeded, InvalidArgument, ProvisionedThroughputExceeded,
		ExpiredIterator, ExpiredNextToken, InternalFailureException, DryRunOperation, KMSAccessDenied, KMSDisabled,
		KMSInvalidState, KMSNotFound, KMSOptInRequired, KMSThrottling, ConcurrentModification, InvalidKMSResource,
		InvalidSource, ServiceUnavailableException, ConditionalCheckFailed, TransactionCanceled,
	}
}
