import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.lambda.LambdaClient;
import software.amazon.awssdk.services.lambda.model.FunctionConfiguration;
import software.amazon.awssdk.services.lambda.model.GetFunctionResponse;
import software.amazon.awssdk.services.lambda.model.InvokeResponse;
import software.amazon.awssdk.services.lambda.model.LogType;
import software.amazon.awssdk.services.lambda.model.ResourceNotFoundException;

/** Lists, gets and invokes functions through the AWS SDK for Java; what it saw goes to stdout as one JSON object. */
public final class Calls {
    public static void main(String[] arguments) {
        String name = arguments[0];
        try (LambdaClient client = LambdaClient.create()) {
            List<String> listed = new ArrayList<>();
            client.listFunctionsPaginator(request -> request.maxItems(1)).functions().stream()
                    .map(FunctionConfiguration::functionName)
                    .map(Calls::quoted)
                    .forEach(listed::add);

            GetFunctionResponse found =
                    client.waiter().waitUntilFunctionActiveV2(request -> request.functionName(name)).matched().response()
                            .orElseThrow();
            Map<String, String> variables = new LinkedHashMap<>();
            found.configuration().environment().variables().forEach((key, value) -> variables.put(key, quoted(value)));

            InvokeResponse answer = client.invoke(request -> request.functionName(name)
                    .logType(LogType.TAIL)
                    .payload(SdkBytes.fromUtf8String("{\"name\": \"Java\"}")));
            InvokeResponse failed = client.invoke(request -> request.functionName(name)
                    .payload(SdkBytes.fromUtf8String("{\"fail\": \"as asked\"}")));

            Map<String, String> missing = new LinkedHashMap<>();
            try {
                client.getFunction(request -> request.functionName("missing"));
            } catch (ResourceNotFoundException error) {
                missing.put("typed", "true");
                missing.put("status", String.valueOf(error.statusCode()));
                missing.put("code", quoted(error.awsErrorDetails().errorCode()));
                missing.put("message", quoted(error.awsErrorDetails().errorMessage()));
            }

            Map<String, String> saw = new LinkedHashMap<>();
            saw.put("listed", listed.toString());
            saw.put("handler", quoted(found.configuration().handler()));
            saw.put("memory_mb", String.valueOf(found.configuration().memorySize()));
            saw.put("variables", object(variables));
            saw.put("location", quoted(found.code().location()));
            saw.put("status", String.valueOf(answer.statusCode()));
            saw.put("version", quoted(answer.executedVersion()));
            saw.put("log_base64", quoted(answer.logResult()));
            saw.put("result", answer.payload().asUtf8String());
            saw.put("function_error", quoted(failed.functionError()));
            saw.put("failure", failed.payload().asUtf8String());
            saw.put("missing", object(missing));
            System.out.println(object(saw));
        }
    }

    /** A JSON object; the values are JSON already. */
    private static String object(Map<String, String> members) {
        List<String> texts = new ArrayList<>();
        members.forEach((name, value) -> texts.add(quoted(name) + ": " + value));
        return "{" + String.join(", ", texts) + "}";
    }

    /** A JSON string, in ASCII whatever the locale is. */
    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder json = new StringBuilder("\"");
        for (char one : text.toCharArray()) {
            json.append(one < 0x20 || one > 0x7e || one == '"' || one == '\\' ? String.format("\\u%04x", (int) one) : one);
        }
        return json.append('"').toString();
    }
}
