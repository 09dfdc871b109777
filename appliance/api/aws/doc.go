// Package aws is what the AWS-shaped services of one port have in common: the
// JSON 1.0/1.1 and CBOR codecs, the error table, validation from tables, dispatch
// by X-Amz-Target, Signature Version 4, event streams, and the parser of the
// batches that make up nearly all traffic.
//
// A service declares a Model (its Shapes: length, range, pattern, enum) and one Go
// struct per input and output, and hands both with its functions to NewService:
//
//	var model = aws.NewModel(aws.Shapes{
//		"StreamName": {Min: aws.At(1), Max: aws.At(128), Pattern: `[a-zA-Z0-9_.-]+`},
//		"TagKey":     {Min: aws.At(1), Max: aws.At(128)},
//		"TagKeyList": {Min: aws.At(1), Max: aws.At(50), Member: "TagKey"},
//	})
//
//	type removeTagsInput struct {
//		StreamName *string  `aws:"shape=StreamName"`
//		TagKeys    []string `aws:"required,shape=TagKeyList"`
//	}
//
//	aws.NewService(options,
//		aws.Op("RemoveTagsFromStream", s.removeTags), // func(ctx, *aws.Call, *removeTagsInput) (*aws.Empty, error)
//		aws.RawOp("PutRecords", s.putRecords))        // func(ctx, *aws.Call) error: reads and answers itself
//
// Members have the name of their Go field unless the tag gives another
// (`aws:"name=tagKeys"`). Supported types: string, bool, int, int32, int64, float64,
// []byte (blob), time.Time (timestamp), slices, map[string]T, structs, named forms
// of these and pointers to them. Going out, nil pointers, slices and maps and zero
// times are left out, everything else is written; `aws:"omitempty"` leaves out
// zero values, too. Coming in, null is the same as absent, unknown members are skipped.
//
// The package never opens sockets or files and knows nothing of streams or storage.
package aws
