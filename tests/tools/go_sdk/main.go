// Lists, gets and invokes functions through the AWS SDK for Go; what it saw goes to stdout as one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

type missing struct {
	Typed   bool   `json:"typed"`
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type saw struct {
	Listed        []string          `json:"listed"`
	Handler       *string           `json:"handler"`
	Memory        *int32            `json:"memory_mb"`
	Variables     map[string]string `json:"variables"`
	Location      *string           `json:"location"`
	Status        int32             `json:"status"`
	Version       *string           `json:"version"`
	Log           *string           `json:"log_base64"`
	Result        json.RawMessage   `json:"result"`
	Streamed      json.RawMessage   `json:"streamed"`
	FunctionError *string           `json:"function_error"`
	Failure       json.RawMessage   `json:"failure"`
	Missing       missing           `json:"missing"`
}

func calls(ctx context.Context, name string) (*saw, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	client := lambda.NewFromConfig(settings)

	var listed []string
	pages := lambda.NewListFunctionsPaginator(client, &lambda.ListFunctionsInput{MaxItems: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range page.Functions {
			listed = append(listed, *one.FunctionName)
		}
	}

	get := &lambda.GetFunctionInput{FunctionName: &name}
	found, err := lambda.NewFunctionActiveV2Waiter(client).WaitForOutput(ctx, get, 30*time.Second)
	if err != nil {
		return nil, err
	}

	answer, err := client.Invoke(ctx, &lambda.InvokeInput{
		FunctionName: &name,
		LogType:      types.LogTypeTail,
		Payload:      []byte(`{"name": "Go"}`),
	})
	if err != nil {
		return nil, err
	}
	failed, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: []byte(`{"fail": "as asked"}`)})
	if err != nil {
		return nil, err
	}

	streaming, err := client.InvokeWithResponseStream(ctx, &lambda.InvokeWithResponseStreamInput{
		FunctionName: &name,
		Payload:      []byte(`{"name": "Go"}`),
	})
	if err != nil {
		return nil, err
	}
	stream := streaming.GetStream()
	defer stream.Close()
	var streamed []byte
	complete := false
	for event := range stream.Events() {
		switch one := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			streamed = append(streamed, one.Value.Payload...)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = true
		}
	}
	if err := stream.Err(); err != nil || !complete {
		return nil, fmt.Errorf("the stream was cut short: %w", err)
	}

	_, err = client.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String("missing")})
	var notFound *types.ResourceNotFoundException
	var response *http.ResponseError
	if !errors.As(err, &notFound) || !errors.As(err, &response) {
		return nil, fmt.Errorf("another error than expected: %w", err)
	}

	return &saw{
		Listed:        listed,
		Handler:       found.Configuration.Handler,
		Memory:        found.Configuration.MemorySize,
		Variables:     found.Configuration.Environment.Variables,
		Location:      found.Code.Location,
		Status:        answer.StatusCode,
		Version:       answer.ExecutedVersion,
		Log:           answer.LogResult,
		Result:        answer.Payload,
		Streamed:      streamed,
		FunctionError: failed.FunctionError,
		Failure:       failed.Payload,
		Missing:       missing{true, response.HTTPStatusCode(), notFound.ErrorCode(), notFound.ErrorMessage()},
	}, nil
}

func main() {
	result, err := calls(context.Background(), os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
